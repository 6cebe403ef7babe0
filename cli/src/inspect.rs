//! `ringlog inspect`: what a log consists of.

use clap::Args;
use ringlog::{Inspection, SegmentStream, ShardInspection, StreamId};
use serde_json::{Value, json};

use crate::output::{self, Exit, Failure, Messages};
use crate::profile_disk;
use crate::text::{bytes, escape, table, utc};

/// Show the format, segments and streams of a log, changing and locking nothing.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// Show as well which offsets of which streams each segment holds. Reads the whole log.
    #[arg(long)]
    streams: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs, messages: Messages) -> Result<Exit, Failure> {
    let inspection = match args.streams {
        true => ringlog::inspect_segments(&args.dir.dir)?,
        false => ringlog::inspect(&args.dir.dir)?,
    };
    if messages.json() {
        output::print_json(&inspection_json(&inspection))?;
    } else {
        output::print(&inspection_text(&inspection))?;
    }
    Ok(tell_damage(&inspection, messages))
}

/// Says what kept a part of the log from being shown; and how the command ends.
pub(crate) fn tell_damage(inspection: &Inspection, messages: Messages) -> Exit {
    let damaged = inspection.shards.iter().filter_map(|shard| shard.damage.as_ref());
    for damage in damaged.clone() {
        messages.error(&format!("damaged, and not shown from there on: {damage}"));
    }
    if damaged.count() > 0 { Exit::Bad } else { Exit::Done }
}

fn inspection_json(inspection: &Inspection) -> Value {
    let shards: Vec<Value> = inspection
        .shards
        .iter()
        .map(|shard| {
            let segments: Vec<Value> = shard
                .segments
                .iter()
                .map(|segment| {
                    json!({
                        "id": segment.id.0,
                        "state": segment.state.to_string(),
                        "base_lsn": segment.base_lsn.0,
                        "end_lsn": segment.end_lsn.0,
                        "records": segment.records,
                        "bytes": segment.bytes,
                        "first_time_ns": segment.first_time_ns,
                        "last_time_ns": segment.last_time_ns,
                        "index": segment.index.map(|index| index.to_string()),
                        "streams": segment.streams.as_ref().map(|streams| {
                            streams
                                .iter()
                                .map(|held| segment_stream_json(shard, held))
                                .collect::<Vec<_>>()
                        }),
                    })
                })
                .collect();
            let streams: Vec<Value> = shard
                .streams
                .iter()
                .map(|stream| {
                    json!({
                        "name": stream.name,
                        "id": stream.id.0,
                        "records": stream.records,
                        "first_offset": stream.first_offset.0,
                        "next_offset": stream.next_offset.0,
                    })
                })
                .collect();
            json!({
                "shard": shard.shard,
                "clean": shard.clean,
                "proven_lsn": shard.proven_lsn.0,
                "segments": segments,
                "streams": streams,
                "damage": shard.damage.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    json!({
        "log_id": inspection.log_id.to_string(),
        "epoch": inspection.epoch.0,
        "created_ns": inspection.created_ns,
        "segment_bytes": inspection.format.segment_bytes,
        "profile": inspection.profile.as_ref().map(profile_disk::profile_json),
        "shards": shards,
    })
}

fn segment_stream_json(shard: &ShardInspection, held: &SegmentStream) -> Value {
    json!({
        "name": name_of(shard, held.id),
        "id": held.id.0,
        "records": held.records,
        "first_offset": held.first_offset.0,
        "last_offset": held.last_offset.0,
    })
}

fn name_of(shard: &ShardInspection, id: StreamId) -> Option<&str> {
    // In the order of their numbers, of which few are missing.
    let streams = &shard.streams;
    let at = streams.binary_search_by_key(&id, |stream| stream.id).ok()?;
    Some(&streams[at].name)
}

/// Which offsets of which streams the segments of a shard hold.
fn segment_streams_text(shard: &ShardInspection) -> String {
    let held = shard.segments.iter().flat_map(|segment| {
        let streams = segment.streams.iter().flatten();
        streams.map(|held| {
            vec![
                segment.id.to_string(),
                held.records.to_string(),
                held.first_offset.to_string(),
                held.last_offset.to_string(),
                name_of(shard, held.id).map_or_else(|| format!("({})", held.id.0), escape),
            ]
        })
    });
    let rows: Vec<Vec<String>> = held.collect();
    table(&["segment", "records", "first", "last", "stream"], &rows)
}

fn inspection_text(inspection: &Inspection) -> String {
    let mut text = format!(
        "log {}, created {}, epoch {}, {} shards, segments of {}\n",
        inspection.log_id,
        utc(inspection.created_ns),
        inspection.epoch.0,
        inspection.shards.len(),
        bytes(inspection.format.segment_bytes)
    );
    if let Some(profile) = &inspection.profile {
        text += &format!("disk: {}\n", profile_disk::class_text(profile));
    }
    for shard in &inspection.shards {
        let segments: Vec<Vec<String>> = shard
            .segments
            .iter()
            .map(|segment| {
                vec![
                    segment.id.to_string(),
                    segment.state.to_string(),
                    segment.base_lsn.to_string(),
                    segment.end_lsn.to_string(),
                    segment.records.to_string(),
                    segment.bytes.to_string(),
                    segment.index.map(|index| index.to_string()).unwrap_or_default(),
                    segment.first_time_ns.map(utc).unwrap_or_default(),
                    segment.last_time_ns.map(utc).unwrap_or_default(),
                ]
            })
            .collect();
        let streams: Vec<Vec<String>> = shard
            .streams
            .iter()
            .map(|stream| {
                vec![
                    stream.records.to_string(),
                    stream.first_offset.to_string(),
                    stream.next_offset.to_string(),
                    escape(&stream.name),
                ]
            })
            .collect();
        let head = [
            "segment", "state", "from LSN", "to LSN", "records", "bytes", "index", "first", "last",
        ];
        let clean = if shard.clean { "closed cleanly" } else { "not closed cleanly" };
        text += &format!("\nshard {}, {clean}\n{}", shard.shard, table(&head, &segments));
        if shard.segments.iter().any(|segment| segment.streams.is_some()) {
            text += &format!("\n{}", segment_streams_text(shard));
        }
        text += &format!("\n{}", table(&["records", "first", "next", "stream"], &streams));
    }
    text
}
