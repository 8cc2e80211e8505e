"""Human feedback: a store of events, an annotation web app, agreement statistics, and exports for training."""
