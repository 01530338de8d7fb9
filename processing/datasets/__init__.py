"""Data Sets whose pixels are touched: converting them, and deriving others from them."""
