"""Every number that README or docs state. ``python3 run.py bench NAME`` runs ``benchmarks/NAME.py``."""
