"""The circulation: arteries as windkessels, a heart under the baroreflex, and two beating ventricles in a closed loop."""
