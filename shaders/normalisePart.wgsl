// A workgroup takes one part of a row: the mean of its elements less the row's first one, and the sum of their squared
// deviations from that mean.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let group = min(group_index(id), params.groups - 1u);
  let row = group / params.parts;
  let first = group % params.parts * params.part_length;
  let end = min(first + params.part_length, params.length);
  let count = f32(end - first);
  let pivot = load_x(row, 0u);
  var total = vec2<f32>(0.0);
  for (var j = first + local; j < end; j += WIDTH) { total.x += load_x(row, j) - pivot; }
  let mean = over_lanes(local, total).x / count;
  var deviation = vec2<f32>(0.0);
  for (var j = first + local; j < end; j += WIDTH) {
    let d = load_x(row, j) - pivot - mean;
    deviation += vec2<f32>(d, d * d);
  }
  deviation = over_lanes(local, deviation);
  let correction = deviation.x / count;
  if (local == 0u) {
    store_part(2u * group, mean + correction);
    store_part(2u * group + 1u, max(deviation.y - correction * deviation.x, 0.0));
  }
}
