"""Networks: parameters and an input in, an output out."""
