"""Estimators of mutual information, in nats. One file an estimator."""
