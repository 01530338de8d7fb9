"""How instances leave, whoever asked: contexts, associations and encodings towards one receiver. PS3.4 Annex B."""
