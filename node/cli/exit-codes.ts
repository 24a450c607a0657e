/** What the program's exit status says. Scripts rely on these numbers; README lists them. */
export const exitCodes = {
  ok: 0,
  /** What was asked for could not be done, or a check found something wrong. */
  failed: 1,
  /** Flags, environment or configuration file are wrong, or this Node.js is too old. */
  usage: 2,
  /** `run` only: the action was killed at its time limit. As coreutils' timeout has it. */
  timedOut: 124,
  /** `run` only: Potluck itself failed, so the command's own status is not known. As docker run has it. */
  runFailed: 125,
  /** Ended by Ctrl-C. */
  interrupted: 130,
} as const;

/** Ends the program with a sentence for people and a status, without a stack. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: number;

  constructor(message: string, exitCode: number = exitCodes.failed, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
