fn finish(local: u32, lane: u32, row: u32, mine: bool, peak: f32, sum: f32) {
  if (mine) {
    for (var j = lane; j < params.length; j += LANES) { store_y(row, j, result(load_x(row, j) - peak, sum)); }
  }
}
