"""Codecs: one module per family, samples of one frame in, a codestream out and back."""
