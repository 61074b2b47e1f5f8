"""Where pictures and captions come from: the bundled emoji and the generated shapes."""
