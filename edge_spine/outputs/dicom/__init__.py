"""Parts of the DICOM objects: identity, values copied from the scan, and codes; its door is `identity.identify`."""
