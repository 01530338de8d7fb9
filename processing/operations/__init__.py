"""Operations: one pixel algorithm a module, modality values in, modality values out; no Data Set is known here."""
