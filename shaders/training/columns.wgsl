// A thread folds four neighbouring outputs, of which every load brings the next elements: for software adapters, and sums
// over leading axes. The order of each output is that of `reduce` with one lane.
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let output = group_index(id) * WIDTH + local;
  if (output >= params.outputs) { return; }
  var value = vec4(identity());
  for (var j = 0u; j < params.length; j++) {
    let x = load_x(output, j);
    value = vec4(combine(value.x, x.x), combine(value.y, x.y), combine(value.z, x.z), combine(value.w, x.w));
  }
  store_y(output, value);
}
