"""Studies: what is compared, run as a grid of cells, reported from MLflow."""
