"""Commands of `gptfluence`, one a module: they parse, call one public function, print."""
