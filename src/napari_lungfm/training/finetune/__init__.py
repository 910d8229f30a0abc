"""Fine-tuning of promptable models on a cohort."""
