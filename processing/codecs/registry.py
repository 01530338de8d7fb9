"""Which codec writes which transfer syntax. A codec is one file and one line here."""

from collections.abc import Callable, Mapping

from processing.codecs import htj2k, jpeg_2000, jpeg_lossless, jpeg_ls, rle
from processing.codecs.frame import Codec, Form, Samples

_ARC = "1.2.840.10008.1.2.4."

CODECS: Mapping[str, Codec] = {
    "1.2.840.10008.1.2.5": rle.CODEC,
    _ARC + "57": jpeg_lossless.CODEC,
    _ARC + "70": jpeg_lossless.CODEC,
    _ARC + "80": jpeg_ls.CODEC,
    _ARC + "90": jpeg_2000.CODEC,
    _ARC + "201": htj2k.CODEC,
    _ARC + "202": htj2k.RPCL_CODEC,
}

READERS: Mapping[str, Callable[[bytes, Form], Samples]] = {
    _ARC + "57": jpeg_lossless.read,
    _ARC + "70": jpeg_lossless.read,
    _ARC + "80": jpeg_ls.read,
    _ARC + "81": jpeg_ls.read,
}
"""Who decodes frames that others wrote, where it is not the decoder that pydicom would choose."""
