/** What commands read and write, by regions of memory: whether another may change places with them. */
export class Touched {
  private readonly read = new Set<object>();
  private readonly written = new Set<object>();

  /** Adds a command whose regions are those of its `outs` outputs, then of its inputs. */
  add(regions: readonly object[], outs: number): void {
    regions.forEach((region, i) => {
      (i < outs ? this.written : this.read).add(region);
    });
  }
  writes(region: object): boolean {
    return this.written.has(region);
  }
  /** True if such a command touches what is written, or writes what is touched. */
  conflicts(regions: readonly object[], outs: number): boolean {
    return regions.some((region, i) => this.written.has(region) || (i < outs && this.read.has(region)));
  }
  /** How many regions these and `regions` are. */
  countWith(regions: readonly object[]): number {
    return new Set([...this.read, ...this.written, ...regions]).size;
  }
}
