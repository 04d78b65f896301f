"""MLflow: where runs go, the logger that writes them, and what is done while the server is away.

It imports no other room of the package. Begin with ``run_logger.py``; ``address.py`` says where runs go.
"""
