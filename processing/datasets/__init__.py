"""Data Sets whose pixels are touched: converting them to another transfer syntax."""
