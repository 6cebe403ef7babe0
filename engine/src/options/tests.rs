use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn every_policy_can_be_written() {
    let good = [
        ("every-commit", SyncPolicy::EveryCommit),
        ("every-append", SyncPolicy::EveryAppend),
        ("never", SyncPolicy::Never),
        ("interval:10ms", SyncPolicy::Interval(10 * MS)),
        ("interval:1h", SyncPolicy::Interval(3_600_000 * MS)),
        ("records:7", SyncPolicy::EveryRecords { records: 7, max_delay: 10 * MS }),
        ("records:7:2s", SyncPolicy::EveryRecords { records: 7, max_delay: 2000 * MS }),
        ("bytes:64K", SyncPolicy::EveryBytes { bytes: 65536, max_delay: 10 * MS }),
        ("bytes:1:5ms", SyncPolicy::EveryBytes { bytes: 1, max_delay: 5 * MS }),
    ];
    for (text, policy) in good {
        assert_eq!(text.parse(), Ok(policy), "{text}");
        assert_eq!(policy.to_string().parse(), Ok(policy), "{text}, named");
    }
    for bad in [
        "",
        "sometimes",
        "interval",
        "interval:10",
        "interval:1ms:2ms",
        "records:",
        "records:-1",
        "records:1:1ms:",
        "bytes:1X",
        "interval:99999999999999999999h",
        "interval:9999999999999999h",
        "every-commit:1",
    ] {
        assert!(bad.parse::<SyncPolicy>().is_err(), "{bad:?} was taken for a policy");
    }
}

#[test]
fn times_and_sizes_can_be_written() {
    let spans = [0, 1, 999, 1_000, 1_001, 2_000_000, 1_000_000_000, 90_000_000_000, 86_400 << 30];
    for ns in spans.map(Duration::from_nanos).into_iter().chain([Duration::MAX / 2_000_000_000]) {
        assert_eq!(text::duration(&text::duration_text(ns)), Ok(ns), "{ns:?}");
    }
    assert_eq!(text::duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
    assert_eq!(text::duration_text(Duration::from_secs(7200)), "2h");
    assert_eq!(text::size("3G"), Ok(3 << 30));
    assert_eq!(text::size("64KiB"), Ok(64 << 10));
    for bad in ["", "K", "1.5M", "1MB", "-1", "99999999999G", "99999999999999999999"] {
        assert!(text::size(bad).is_err(), "{bad:?} was taken for a size");
    }
}

/// Fails to compile when a field is added: give it a variable, a method of the builder, a bound,
/// a row in docs/operations.md, and a value here.
fn none_is_the_default(options: &Options) -> [bool; 22] {
    let default = Options::default();
    let Options {
        create,
        format: Format { segment_bytes, shards },
        durability,
        sync,
        stream_sync,
        recovery,
        io,
        primitive,
        profile_disk,
        pin,
        memory_bytes,
        batch_bytes_max,
        commits_in_flight,
        commit_bytes,
        linger,
        retention: Retention { max_bytes, max_age, max_segments },
        rotate_after,
        index_cache_bytes,
        tail_bytes,
    } = options;
    [
        *create != default.create,
        *segment_bytes != default.format.segment_bytes,
        *shards != default.format.shards,
        *durability != default.durability,
        *sync != default.sync,
        *stream_sync != default.stream_sync,
        *recovery != default.recovery,
        *io != default.io,
        *primitive != default.primitive,
        *profile_disk != default.profile_disk,
        *pin != default.pin,
        *memory_bytes != default.memory_bytes,
        *batch_bytes_max != default.batch_bytes_max,
        *commits_in_flight != default.commits_in_flight,
        *commit_bytes != default.commit_bytes,
        *linger != default.linger,
        *max_bytes != default.retention.max_bytes,
        *max_age != default.retention.max_age,
        *max_segments != default.retention.max_segments,
        *rotate_after != default.rotate_after,
        *index_cache_bytes != default.index_cache_bytes,
        *tail_bytes != default.tail_bytes,
    ]
}

/// Options of which none is the default, all within their bounds.
fn unusual() -> Options {
    let retention = Retention {
        max_bytes: Some(10 << 30),
        max_age: Some(Duration::from_secs(7 * 86_400)),
        max_segments: Some(12),
    };
    Options::builder()
        .create(false)
        .segment_bytes(16 << 20)
        .shards(4)
        .durability(Durability::Written)
        .sync(SyncPolicy::Interval(20 * MS))
        .stream_sync("a=b", SyncPolicy::Never)
        .stream_sync("c", SyncPolicy::EveryBytes { bytes: 65536, max_delay: 5 * MS })
        .recovery(RecoveryMode::ReadOnly)
        .io(IoKind::Blocking)
        .primitive(Primitive::LinkedSync)
        .profile_disk(false)
        .pin(false)
        .memory_bytes(64_usize << 20)
        .batch_bytes_max(1_usize << 20)
        .commits_in_flight(4)
        .commit_bytes(8 << 20)
        .linger(Duration::from_micros(500))
        .retention(retention)
        .rotate_after(Duration::from_secs(3600))
        .index_cache_bytes(1_usize << 20)
        .tail_bytes(128_usize << 10)
        .build()
        .unwrap()
}

const ENVIRONMENT: [(&str, &str); 22] = [
    ("RINGLOG_CREATE", "0"),
    ("RINGLOG_SEGMENT_BYTES", "16M"),
    ("RINGLOG_SHARDS", "4"),
    ("RINGLOG_DURABILITY", "written"),
    ("RINGLOG_SYNC", "interval:20ms"),
    ("RINGLOG_STREAM_SYNC", "a=b=never,c=bytes:64K:5ms"),
    ("RINGLOG_RECOVERY", "read-only"),
    ("RINGLOG_IO", "blocking"),
    ("RINGLOG_PRIMITIVE", "linked"),
    ("RINGLOG_PROFILE_DISK", "0"),
    ("RINGLOG_PIN", "0"),
    ("RINGLOG_MEMORY_BYTES", "64M"),
    ("RINGLOG_BATCH_BYTES_MAX", "1024K"),
    ("RINGLOG_COMMITS_IN_FLIGHT", "4"),
    ("RINGLOG_COMMIT_BYTES", "8388608"),
    ("RINGLOG_LINGER", "500us"),
    ("RINGLOG_RETAIN_BYTES", "10G"),
    ("RINGLOG_RETAIN_AGE", "7d"),
    ("RINGLOG_RETAIN_SEGMENTS", "12"),
    ("RINGLOG_ROTATE_AFTER", "1h"),
    ("RINGLOG_INDEX_CACHE_BYTES", "1M"),
    ("RINGLOG_TAIL_BYTES", "128K"),
];

fn from(variables: &[(&str, &str)]) -> Result<Options, OpenError> {
    let mut options = Options::default();
    options.set_from(variables.iter().map(|(name, value)| (name.into(), value.into())))?;
    Ok(options)
}

#[test]
fn every_field_has_a_method_and_a_variable() {
    assert!(none_is_the_default(&unusual()).iter().all(|differs| *differs), "{:?}", unusual());
    assert_eq!(from(&ENVIRONMENT), Ok(unusual()));
    assert_eq!(unusual().to_builder().build(), Ok(unusual()));
    for known in VARIABLES {
        assert!(ENVIRONMENT.iter().any(|(name, _)| *name == known.name), "{}", known.name);
        // Alone, it changes one field.
        let (name, value) = *ENVIRONMENT.iter().find(|(name, _)| *name == known.name).unwrap();
        let changed = none_is_the_default(&from(&[(name, value)]).unwrap());
        assert_eq!(changed.iter().filter(|differs| **differs).count(), 1, "{name}");
        match from(&[(name, "?")]) {
            Err(OpenError::InvalidOption { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}=? was taken: {other:?}"),
        }
    }
}

#[test]
fn operations_md_lists_every_variable_and_field() {
    let text = include_str!("../../../docs/operations.md");
    for known in VARIABLES {
        let row = format!("| `{}` | `{}` |", known.field, known.name);
        assert!(text.contains(&row), "docs/operations.md lacks {row}");
    }
}

#[test]
fn a_mistyped_variable_is_refused_and_others_are_left_alone() {
    let mistyped = [
        ("RINGLOG_SYNCS", "RINGLOG_SYNC"),
        ("RINGLOG_SHARD", "RINGLOG_SHARDS"),
        ("RINGLOG_COMMIT_IN_FLIGHT", "RINGLOG_COMMITS_IN_FLIGHT"),
        ("RINGLOG_MEMORY_BYTE", "RINGLOG_MEMORY_BYTES"),
        ("RINGLOG_RETENTION_MAX_AGE", "RINGLOG_RETAIN_AGE"),
        ("RINGLOG_FORMAT_SEGMENT_BYTES", "RINGLOG_SEGMENT_BYTES"),
    ];
    for (name, meant) in mistyped {
        match from(&[(name, "1")]) {
            Err(OpenError::InvalidOption { field, reason }) => {
                assert_eq!(field, name);
                assert!(reason.contains(meant), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // Our own scripts have some, and programs on top of ringlog may.
    for name in ["RINGLOG_BIN", "RINGLOG_TEST_DIR", "RINGLOG_IMAGE_DIR", "RINGLOG_MY_PROGRAM"] {
        assert_eq!(from(&[(name, "?")]), Ok(Options::default()), "{name}");
    }
}

#[test]
fn stream_policies_are_read_whole_or_not_at_all() {
    for bad in ["a", "=never", "a=", "a=never,b", "a=never,a=never", "a=sometimes"] {
        assert!(from(&[("RINGLOG_STREAM_SYNC", bad)]).is_err(), "{bad:?}");
    }
    assert_eq!(from(&[("RINGLOG_STREAM_SYNC", "")]).unwrap().stream_sync, BTreeMap::new());
}

#[test]
fn options_out_of_bounds_are_named() {
    let new = Options::builder;
    let bad = [
        (new().memory_bytes(1_usize), "memory_bytes", "4194304"),
        (new().batch_bytes_max(1_usize), "batch_bytes_max", "65536"),
        (new().commits_in_flight(9), "commits_in_flight", "1 to 8"),
        (new().commit_bytes(1), "commit_bytes", "65536"),
        (new().index_cache_bytes(65_535_usize), "index_cache_bytes", "65536 to 4294967296"),
        (new().tail_bytes((1_usize << 30) + 1), "tail_bytes", "65536 to 1073741824"),
        (new().linger(2000 * MS), "linger", "1 s"),
        (new().rotate_after(999 * MS), "rotate_after", "1 s"),
        (
            new().retention(Retention { max_age: Some(999 * MS), ..Retention::default() }),
            "retention.max_age",
            "1 s",
        ),
        (new().sync(SyncPolicy::Interval(MS / 2)), "sync", "1 ms to 1 h"),
        (new().stream_sync("s", SyncPolicy::Interval(MS / 2)), "stream_sync[\"s\"]", "1 ms to 1 h"),
        (new().segment_bytes(3 << 20), "format.segment_bytes", "1 MiB to 1 GiB"),
        (new().segment_bytes(2 << 30), "format.segment_bytes", "1 MiB to 1 GiB"),
        (new().shards(0), "format.shards", "1 to 64"),
        (new().shards(65), "format.shards", "1 to 64"),
    ];
    for (builder, name, bound) in bad {
        match builder.build() {
            Err(OpenError::InvalidOption { field, reason }) => {
                assert_eq!(field, name);
                assert!(reason.contains(bound), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(Options::default().validate(), Ok(()));
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::*;

    fn there_and_back(options: &Options) {
        let text = serde_json::to_string(options).unwrap();
        assert_eq!(&serde_json::from_str::<Options>(&text).unwrap(), options, "{text}");
    }

    #[test]
    fn options_survive_the_way_through_a_file() {
        there_and_back(&Options::default());
        there_and_back(&unusual());
        let policies =
            [SyncPolicy::EveryAppend, SyncPolicy::Never, "records:3:1500us".parse().unwrap()];
        for sync in policies {
            there_and_back(&Options { sync, ..unusual() });
        }
        there_and_back(&Options { linger: Duration::from_nanos(1_234_567), ..unusual() });
    }

    #[test]
    fn a_file_says_what_it_changes_in_words() {
        let text = r#"{
            "format": { "segment_bytes": "16M" }, "durability": "written", "sync": "interval:20ms",
            "stream_sync": { "c": "never" }, "linger": "500us", "rotate_after": "1h", "io": "uring",
            "primitive": "linked", "tail_bytes": 131072,
            "retention": { "max_bytes": "10G", "max_age": "7d" }
        }"#;
        let options: Options = serde_json::from_str(text).unwrap();
        let expected = Options::builder()
            .segment_bytes(16 << 20)
            .durability(Durability::Written)
            .sync(SyncPolicy::Interval(20 * MS))
            .stream_sync("c", SyncPolicy::Never)
            .linger(Duration::from_micros(500))
            .rotate_after(Duration::from_secs(3600))
            .io(IoKind::Uring)
            .primitive(Primitive::LinkedSync)
            .tail_bytes(131_072_usize)
            .retention(Retention { max_segments: None, ..unusual().retention })
            .build();
        assert_eq!(Ok(options), expected);
    }

    #[test]
    fn what_is_unknown_or_unreadable_is_refused() {
        for (text, told) in [
            (r#"{ "durabilty": "synced" }"#, "unknown field"),
            (r#"{ "format": { "shard": 2 } }"#, "unknown field"),
            (r#"{ "retention": { "age": "7d" } }"#, "unknown field"),
            (r#"{ "sync": "sometimes" }"#, "not a sync policy"),
            (r#"{ "durability": "Synced" }"#, "memory, written, synced"),
            (r#"{ "linger": 5 }"#, "string"),
            (r#"{ "commit_bytes": "2X" }"#, "not a size"),
            (r#"{ "memory_bytes": -1 }"#, "number of bytes"),
        ] {
            let error = serde_json::from_str::<Options>(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
