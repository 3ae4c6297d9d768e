"""What jobs of a cluster have in common, whichever it is: marks on a disk that its hosts share with ours."""
