"""Measurements that need more of the model than its gradients."""

from gradguard.probe.updates import UpdateProbe as UpdateProbe
