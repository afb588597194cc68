"""The backend that answers without a language model."""
