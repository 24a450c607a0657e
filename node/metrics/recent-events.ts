/** The newest warnings and errors, for `status`. */
export interface LoggedEvent {
  /** ISO 8601. */
  readonly time: string;
  readonly level: 'warning' | 'error';
  readonly message: string;
}

export interface RecentEvents {
  add(event: LoggedEvent): void;
  /** Oldest first. */
  list(): readonly LoggedEvent[];
}

export function createRecentEvents(max: number): RecentEvents {
  const events: LoggedEvent[] = [];
  return {
    add(event) {
      events.push(event);
      if (events.length > max) events.shift();
    },
    list: () => [...events],
  };
}
