"""Training of automatic models: configuration, checked and prepared cohorts, slices, the fit."""
