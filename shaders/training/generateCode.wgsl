// A workgroup computes WIDTH elements of the gradient of TASKS codes. It makes WIDTH elements of the tasks' gradients
// of W at a time, by which every thread then multiplies a row of the basis.
var<workgroup> dw: array<array<f32, TASKS>, WIDTH>;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let e = group_index(id) % params.groups * WIDTH + local;
  let first = group_index(id) / params.groups * TASKS;
  var sum: array<f32, TASKS>;
  for (var start = 0u; start < params.depth * params.columns; start += WIDTH) {
    let mine = start + local;
    let inside = mine < params.depth * params.columns;
    let k = select(0u, mine / params.columns, inside);
    let column = select(0u, mine % params.columns, inside);
    for (var t = 0u; t < TASKS; t++) {
      let rows = rows_of(first + t);
      var value = 0.0;
      if (inside) {
        for (var r = rows.x; r < rows.y; r++) { value = fma(load_x(r, k), load_g(r, column), value); }
      }
      dw[local][t] = value;
    }
    workgroupBarrier();
    if (e < params.width) {
      for (var j = 0u; j < min(WIDTH, params.depth * params.columns - start); j++) {
        let b = load_basis(e, (start + j) / params.columns, (start + j) % params.columns);
        for (var t = 0u; t < TASKS; t++) { sum[t] = fma(b, dw[j][t], sum[t]); }
      }
    }
    workgroupBarrier();
  }
  for (var t = 0u; t < TASKS; t++) {
    if (e < params.width && first + t < params.tasks) { store_y(first + t, e, sum[t]); }
  }
}
