"""Training models as files contain them: adapters beside packed weights."""
