"""Small training programs, half of them with a planted fault, on which detectors are measured."""
