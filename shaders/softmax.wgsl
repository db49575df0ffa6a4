// LANES threads share one row: its maximum, then the sum of exponentials, then what finish() makes of them. All threads
// call finish(); those whose row is not `mine` store nothing.
// The fold of one value per lane, given to every lane of the row.
fn over_lanes(local: u32, lane: u32, value: f32, largest: bool) -> f32 {
  var result = value;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    let other = from_lane(local, half, result);
    result = select(result + other, math_max(result, other), largest);
  }
  return result;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let lane = local % LANES;
  let wanted = group_index(id) * (WIDTH / LANES) + local / LANES;
  let row = min(wanted, params.rows - 1u);
  var peak = -math_infinity();
  for (var j = lane; j < params.length; j += LANES) { peak = math_max(peak, load_x(row, j)); }
  peak = over_lanes(local, lane, peak, true);
  var sum = 0.0;
  for (var j = lane; j < params.length; j += LANES) { sum += exp(load_x(row, j) - peak); }
  sum = over_lanes(local, lane, sum, false);
  finish(local, lane, row, wanted < params.rows, peak, sum);
}
