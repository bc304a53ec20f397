"""What can only be measured on a CUDA device: ``python -m benchmarks.gpu`` (``make gpu``)."""
