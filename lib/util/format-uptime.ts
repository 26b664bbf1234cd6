// Durations as HarperDB writes them in `cluster_status`.

/** `30d 1h 18m 8s`; leading parts that are zero are omitted. */
export function formatUptime(seconds: number): string {
  const whole = Math.floor(seconds)
  const parts: [count: number, unit: string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3_600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ]
  const first = parts.findIndex(([count, unit]) => count > 0 || unit === 's')
  return parts
    .slice(first)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ')
}
