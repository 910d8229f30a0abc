"""Cases, cohorts, splits and synthetic chest CTs."""
