"""How good is a head, and how sure is that: probes with their strength chosen without the test set, scores with
intervals, paired tests, calibration, reports over layers and label counts."""
