// Rows of data, as they lie in panels (see src/device/panels.rs), to the columns of a matrix.

#define PANEL_ROWS 256

/// `out[j][i] = (x[row_i][j] - shift_j) factor_j` for the rows named by `list`, or without it for consecutive rows from
/// `first` on.
extern "C" __global__ void load(const float *panels, i64 columns, i64 first, const u32 *list, const float *shift,
                                const float *factor, Matrix out) {
  FOR_ELEMENTS(j, i, out) {
    const i64 row = first + (list ? (i64)list[i] : i);
    const float x = panels[row / PANEL_ROWS * PANEL_ROWS * columns + j * PANEL_ROWS + row % PANEL_ROWS];
    at(out, j, i) = (x - shift[j]) * factor[j];
  }
}
