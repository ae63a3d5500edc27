"""Runs on Kubernetes: RayJobs of the KubeRay operator, made, followed, ended."""
