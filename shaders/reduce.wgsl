// LANES threads share one output. Each folds every (LANES * parts)-th element, a tree folds the lanes. With parts > 1
// an output is cut into parts that a second pass folds. The order depends on the shape alone.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let lane = local % LANES;
  let output = group_index(id) * (WIDTH / LANES) + local / LANES;
  let row = min(output, params.outputs - 1u) / params.parts;
  let part = output % params.parts;
  var value = identity();
  for (var j = part * LANES + lane; j < params.length; j += LANES * params.parts) {
    value = combine(value, load_x(row, j));
  }
  for (var half = LANES / 2u; half > 0u; half /= 2u) { value = combine(value, from_lane(local, half, value)); }
  if (lane == 0u && output < params.outputs) { store_y(output, value); }
}
