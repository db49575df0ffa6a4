fn finish(local: u32, lane: u32, row: u32, mine: bool, peak: f32, sum: f32) {
  var even = 0.0;
  if (smoothing > 0.0) {
    for (var j = lane; j < params.length; j += LANES) { even += load_x(row, j) - peak; }
    even = over_lanes(local, lane, even, false) * smoothing / f32(params.length);
  }
  if (mine && lane == 0u) {
    let label = u32(load_label(row));
    var loss = smoothing * log(sum) - even;
    if (label < params.length) { loss += (1.0 - smoothing) * (log(sum) - (load_x(row, label) - peak)); }
    store_y(row, loss);
  }
}
