// An input pixel gathers from every window that covers it: its tap (kh, kw) belongs to output (h + pad - kh) / stride,
// if that is whole and inside (a negative one wraps to a huge number). `takes` says whether the window took its value
// from this pixel.
fn evaluate(i: u32) {
  let c = i % params.c;
  let w = i / params.c % params.w;
  let h = i / (params.c * params.w) % params.h;
  let n = i / (params.c * params.w * params.h);
  var sum = 0.0;
  for (var kh = 0u; kh < params.kh; kh++) {
    for (var kw = 0u; kw < params.kw; kw++) {
      let y = h + params.pad_h - kh;
      let x = w + params.pad_w - kw;
      let oh = y / params.stride_h;
      let ow = x / params.stride_w;
      let whole = oh * params.stride_h == y && ow * params.stride_w == x;
      if (whole && oh < params.oh && ow < params.ow && takes(n, oh, ow, c, i32(h * params.w + w))) {
        sum += load_g(n, oh, ow, c);
      }
    }
  }
  store_dx(n, h, w, c, sum);
}
