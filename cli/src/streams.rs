//! `ringlog streams`: which streams there are.

use clap::Args;
use ringlog::StreamInspection;
use serde_json::{Value, json};

use crate::inspect::tell_damage;
use crate::output::{self, Exit, Failure, Messages};
use crate::text::{escape, table};

/// List the streams of a log, by name, changing and locking nothing.
///
/// `records` counts the offsets from the first that is still there to the next one, gaps included.
#[derive(Args, Debug)]
pub(crate) struct StreamsArgs {
    #[command(flatten)]
    dir: crate::Dir,
}

/// Runs the command.
pub(crate) fn run(args: &StreamsArgs, messages: Messages) -> Result<Exit, Failure> {
    let inspection = ringlog::inspect(&args.dir.dir)?;
    let mut streams: Vec<(u16, &StreamInspection)> = inspection
        .shards
        .iter()
        .flat_map(|shard| shard.streams.iter().map(|stream| (shard.shard, stream)))
        .collect();
    streams.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    if messages.json() {
        let streams: Vec<Value> = streams.iter().map(|(shard, one)| json(*shard, one)).collect();
        output::print_json(&streams)?;
    } else {
        let rows: Vec<Vec<String>> = streams.iter().map(|(shard, one)| row(*shard, one)).collect();
        output::print(&table(&["shard", "id", "records", "first", "next", "stream"], &rows))?;
    }
    Ok(tell_damage(&inspection, messages))
}

fn json(shard: u16, stream: &StreamInspection) -> Value {
    json!({
        "name": stream.name,
        "shard": shard,
        "id": stream.id.0,
        "records": stream.records,
        "first_offset": stream.first_offset.0,
        "next_offset": stream.next_offset.0,
    })
}

fn row(shard: u16, stream: &StreamInspection) -> Vec<String> {
    vec![
        shard.to_string(),
        stream.id.0.to_string(),
        stream.records.to_string(),
        stream.first_offset.to_string(),
        stream.next_offset.to_string(),
        escape(&stream.name),
    ]
}
