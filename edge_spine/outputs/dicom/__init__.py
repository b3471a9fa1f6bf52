"""What DICOM results share: identity, values copied from the scan, and codes; its door is `identity.identify`."""
