// Stage S of a chain, reductions of a task: a thread folds one output after the other.
fn stage_S(task: u32, lane: u32) {
  for (var i = lane; i < OUTPUTS_S; i += WIDTH) {
    var value = identity_S();
    for (var j = 0u; j < LENGTH_S; j++) { value = combine_S(value, load_x_S(task, i, j)); }
    store_y_S(task, i, value);
  }
}
