"""Looking inside a trained network, and knowing when to believe what is seen there."""
