"""The Kubernetes backend: jobs of a cluster, through its API."""
