/**
 * What this machine tells of its own use, now. Made by `openMachineSensors`, for whoever decides whether guests may stay.
 *
 * A sensor that is missing, refused or broken says `undefined`; none throws.
 */
export interface MachineReading {
  /**
   * Processor use by others than this node, in thousandths of all cores, averaged since the reading before. Work that its
   * user gave a low priority (nice) is in nobody's way and does not count.
   */
  readonly ownerPermille: number | undefined;
  /** Since the last key, pointer or terminal input; infinite on a machine that has no place for any. */
  readonly inputAgoMs: number | undefined;
  readonly onBattery: boolean | undefined;
  /** The machine slows itself down because of heat. */
  readonly hot: boolean | undefined;
  readonly memoryBytes: number;
  /** What programs can still get without swapping. */
  readonly freeMemoryBytes: number | undefined;
  /** Programs wait for memory. */
  readonly memoryPressed: boolean | undefined;
  /** Traffic of the present connection costs money. */
  readonly metered: boolean | undefined;
}

export interface MachineSensors extends Disposable {
  /** Reads some hundred small files, which takes about 2 ms; to be called about once a second. */
  read(): MachineReading;
}
