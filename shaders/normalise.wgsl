// LANES threads share one row: its mean, then what that mean lacks and the squared deviations, then the results.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let lane = local % LANES;
  let wanted = group_index(id) * (WIDTH / LANES) + local / LANES;
  let row = min(wanted, params.rows - 1u);
  let count = f32(params.length);
  var total = vec2<f32>(0.0);
  for (var j = lane; j < params.length; j += LANES) { total.x += load_x(row, j); }
  let mean = over_lanes(local, total).x / count;
  var deviation = vec2<f32>(0.0);
  for (var j = lane; j < params.length; j += LANES) {
    let d = load_x(row, j) - mean;
    deviation += vec2<f32>(d, d * d);
  }
  deviation = over_lanes(local, deviation);
  let correction = deviation.x / count;
  let inverse = 1.0 / sqrt(max(deviation.y / count - correction * correction, 0.0) + eps());
  if (wanted < params.rows) {
    for (var j = lane; j < params.length; j += LANES) {
      store_y(row, j, (load_x(row, j) - mean - correction) * inverse);
    }
    if (lane == 0u) { store_inverse(row, inverse); }
  }
}
