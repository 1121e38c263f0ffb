"""Where samples of benchmarks come from: declared sources, local mirrors, the hub, pictures and videos."""
