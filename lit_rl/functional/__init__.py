"""The estimators' arithmetic: tensors in, tensors out, nothing but torch."""
