//! Slots for experts: budgets, the tables of a cache, its policies, and simulations counted by hand.

use moebius::Error;
use moebius::batch::LayerRouting;
use moebius::paging::{
    ABSENT, ExpertMemory, HALF_LIFE, POLICIES, PlaceShape, Policy, PolicyKind, PolicySetup, Residency, WEIGHTLESS,
};
use moebius::trace::{Order, Simulation, SimulationOptions, Source, Trace, TracedLayer, TracedToken, simulate};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn shape(experts: usize, experts_per_token: usize) -> PlaceShape {
    PlaceShape { layer: 0, experts, weightless: 0, experts_per_token, record_bytes: Some(1000) }
}

fn policy(name: &str) -> &'static PolicyKind {
    PolicyKind::named(name).unwrap()
}

fn setup(experts: usize, slots: usize) -> PolicySetup<'static> {
    PolicySetup { place: 0, experts, slots, least_slots: 1, hot: &[], future: &[] }
}

/// One place.
fn residency(experts: usize, slots: usize, name: &str) -> Residency {
    Residency::new(&[shape(experts, 1)], &[slots], |_| (policy(name).make)(&setup(experts, slots)))
}

/// One text, one layer, the experts of each token.
fn trace(experts: usize, chosen: &[Vec<u32>]) -> Trace {
    let layer = TracedLayer { experts, experts_per_token: chosen[0].len(), expert_bytes: Some(10), ..TracedLayer::default() };
    let mut trace = Trace::new(Source::default(), vec![layer]);
    add_text(&mut trace, "x", &[chosen]);
    trace
}

/// Appends a text; `chosen` are the experts of each token in each layer.
fn add_text(trace: &mut Trace, name: &str, chosen: &[&[Vec<u32>]]) {
    let domain = trace.domain(name);
    let token = |position| TracedToken { domain, position, id: 1, text: "a".to_owned() };
    let routing: Vec<LayerRouting> = chosen
        .iter()
        .enumerate()
        .map(|(layer, chosen)| {
            let expert_ids = chosen.concat();
            let routing_weights = vec![0.5; expert_ids.len()];
            LayerRouting { layer, router_logits: Vec::new(), expert_ids, routing_weights }
        })
        .collect();
    trace.push((0..chosen[0].len()).map(token).collect(), &routing);
}

fn options(name: &str, slots: usize, experts: usize) -> SimulationOptions<'static> {
    let memory = ExpertMemory::Percent(100.0 * slots as f64 / experts as f64);
    SimulationOptions { policy: policy(name), memory, order: Order::Decode, profile: None, text: None }
}

fn run(trace: &Trace, name: &str, slots: usize) -> Simulation {
    simulate(trace, &options(name, slots, trace.layers[0].experts)).unwrap()
}

#[test]
fn budgets_are_read_as_they_are_written() {
    for (text, memory, written) in [
        ("auto", ExpertMemory::Auto, "auto"),
        (" ALL ", ExpertMemory::All, "all"),
        ("6GiB", ExpertMemory::Bytes(6 << 30), "6GiB"),
        ("800mib", ExpertMemory::Bytes(800 << 20), "800MiB"),
        ("1.5 GiB", ExpertMemory::Bytes(3 << 29), "1536MiB"),
        ("2GB", ExpertMemory::Bytes(2_000_000_000), "2GB"),
        ("1.2MiB", ExpertMemory::Bytes(1_258_291), "1.2MiB"),
        ("1234567B", ExpertMemory::Bytes(1_234_567), "1234567B"),
        ("99999999999TiB", ExpertMemory::Bytes(u64::MAX), "16777216.0TiB"),
        ("50%", ExpertMemory::Percent(50.0), "50%"),
        ("12.5 %", ExpertMemory::Percent(12.5), "12.5%"),
    ] {
        let read: ExpertMemory = text.parse().unwrap();
        assert_eq!((read, read.to_string().as_str()), (memory, written), "{text}");
        assert_eq!(written.parse::<ExpertMemory>().unwrap(), memory, "{written}");
    }
    for (text, words) in [
        ("", "expected auto, all, a size such as 6GiB or a share such as 50%, found ``"),
        ("6", "write 6B for bytes, 6GiB or 6%"),
        ("6g", "found `6g`; write 6GiB"),
        ("6 potatoes", "units are B, KiB"),
        ("1,5GiB", "write a point, not a comma"),
        ("12,5%", "write a point, not a comma"),
        ("al", "did you mean `all`?"),
        ("atuo", "did you mean `auto`?"),
        ("0GiB", "a size above zero"),
        ("-1GiB", "a size above zero"),
        ("nanGiB", "expected auto"),
        ("infGiB", "expected auto"),
        ("0%", "above 0%, at most 100%"),
        ("101%", "above 0%, at most 100%"),
        ("nan%", "above 0%, at most 100%"),
        ("½%", "above 0%"),
    ] {
        let error = text.parse::<ExpertMemory>().unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn every_layer_gets_the_same_share_of_its_experts() {
    let large = PlaceShape { record_bytes: Some(3000), ..shape(16, 2) };
    let few = PlaceShape { weightless: 2, ..shape(6, 2) };
    let places = [shape(8, 2), large, few];
    // 8000 + 48000 + 4000 bytes.
    let slots = |memory: ExpertMemory, free| memory.slots(&places, free).unwrap();
    assert_eq!(slots(ExpertMemory::All, None), [8, 16, 4]);
    assert_eq!(slots(ExpertMemory::Percent(50.0), None), [4, 8, 2]);
    assert_eq!(slots(ExpertMemory::Percent(99.9), None), [7, 15, 3]);
    assert_eq!(slots(ExpertMemory::Bytes(30_000), None), [4, 8, 2]);
    assert_eq!(slots(ExpertMemory::Bytes(37_499), None), [4, 9, 2]);
    assert_eq!(slots(ExpertMemory::Bytes(37_500), None), [5, 10, 2]);
    assert_eq!(slots(ExpertMemory::Bytes(u64::MAX), None), [8, 16, 4]);
    assert_eq!(slots(ExpertMemory::Auto, None), [8, 16, 4]);
    assert_eq!(slots(ExpertMemory::Auto, Some(60_000)), [8, 16, 4]);
    assert_eq!(slots(ExpertMemory::Auto, Some(59_999)), [7, 15, 3]);
    // A third of three is one, although no number is a third.
    assert_eq!(ExpertMemory::Percent(100.0 / 3.0).slots(&[shape(3, 1)], None).unwrap(), [1]);
    assert!(ExpertMemory::All.slots(&[], None).unwrap().is_empty());
}

#[test]
fn a_budget_below_one_token_is_refused_with_the_least_that_would_do() {
    let places = [shape(8, 2), PlaceShape { layer: 5, ..shape(64, 6) }];
    let error = ExpertMemory::Percent(10.0).slots(&places, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an expert memory of 10% holds 0 of the 8 experts of layer 0, but a token uses 2: at least 25% is needed"
    );
    assert!(error.hint().is_some());
    let error = ExpertMemory::Auto.slots(&places, Some(2048)).unwrap_err().to_string();
    assert!(error.contains("an expert memory of 2.0 KiB holds 0") && error.contains("at least 17.6KiB is needed"), "{error}");
    let unknown = PlaceShape { record_bytes: None, ..places[1] };
    let error = ExpertMemory::Bytes(9999).slots(&[places[0], unknown], None).unwrap_err().to_string();
    assert!(error.contains("how large an expert is") && error.contains("layer 5"), "{error}");
    // Shares need no sizes.
    assert_eq!(ExpertMemory::Percent(50.0).slots(&[unknown], None).unwrap(), [32]);
}

/// Inverse tables, each slot at most once, nothing without weights in a slot.
fn check_tables(residency: &Residency, experts: usize, slots: usize) -> Result<(), TestCaseError> {
    let (table, holds) = (residency.table(0), residency.holds(0));
    prop_assert_eq!((table.len(), holds.len()), (experts, slots));
    for (expert, &slot) in table.iter().enumerate() {
        prop_assert!(slot == ABSENT || slot == WEIGHTLESS || holds[slot as usize] == Some(expert));
    }
    for (slot, held) in holds.iter().enumerate() {
        prop_assert!(held.is_none_or(|expert| table[expert] == slot as u32));
    }
    let held: Vec<usize> = (0..experts).filter(|expert| holds.contains(&Some(*expert))).collect();
    prop_assert_eq!(residency.resident(0), held);
    Ok(())
}

const EXPERTS: usize = 7;
const PER_TOKEN: usize = 3;

/// What happens to a residency in a test.
#[derive(Debug, Clone)]
enum Step {
    Token(Vec<u32>),
    /// A plan that nobody commits.
    GivenUp(Vec<u32>),
    /// How often a chunk uses each expert, and how many of its waves arrive.
    Chunk(Vec<u32>, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let token = || prop::collection::vec(0..EXPERTS as u32, 1..=PER_TOKEN);
    let chunk = (prop::collection::vec(0u32..3, EXPERTS), 0usize..9);
    prop_oneof![
        4 => token().prop_map(Step::Token),
        1 => token().prop_map(Step::GivenUp),
        2 => chunk.prop_map(|(counts, arrive)| Step::Chunk(counts, arrive)),
    ]
}

fn token(residency: &mut Residency, wanted: &[u32]) -> Result<(), TestCaseError> {
    let before: BTreeSet<usize> = residency.resident(0).into_iter().collect();
    let loads = residency.plan(0, wanted).commit();
    let needed: BTreeSet<usize> = wanted.iter().map(|&expert| expert as usize).collect();
    prop_assert_eq!(loads.iter().map(|load| load.expert).collect::<BTreeSet<_>>(), &needed - &before);
    for load in &loads {
        prop_assert!(load.evicts.is_none_or(|evicted| before.contains(&evicted) && !needed.contains(&evicted)));
    }
    prop_assert!(wanted.iter().all(|&expert| residency.table(0)[expert as usize] < WEIGHTLESS));
    residency.used(0, wanted);
    Ok(())
}

fn chunk(residency: &mut Residency, counts: &[u32], arrive: usize) -> Result<(), TestCaseError> {
    let (before, slots) = (residency.resident(0), residency.holds(0).len());
    residency.used_by_chunk(0, counts, counts.iter().sum::<u32>() as usize);
    let mut waves = residency.waves(0, counts);
    let mut covered: Vec<usize> = waves.all().iter().flat_map(|wave| wave.experts.clone()).collect();
    covered.sort_unstable();
    let needed: Vec<usize> = (0..counts.len()).filter(|&expert| counts[expert] > 0).collect();
    prop_assert_eq!(covered, needed.clone(), "each expert in one wave");
    let loads: usize = waves.all().iter().map(|wave| wave.loads.len()).sum();
    prop_assert_eq!(loads, needed.iter().filter(|expert| !before.contains(expert)).count(), "none is loaded twice");
    for _ in 0..arrive.min(waves.all().len()) {
        let (wave, table) = waves.current().unwrap();
        prop_assert!(wave.experts.len() <= slots);
        let (experts, used): (Vec<usize>, Vec<u32>) = (0..table.len()).zip(table).filter(|(_, slot)| *slot < WEIGHTLESS).unzip();
        prop_assert_eq!(&experts, &wave.experts);
        prop_assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len(), "no slot twice");
        waves.commit_current();
    }
    if arrive >= waves.all().len() {
        prop_assert!(waves.current().is_none());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_stay_whole_whatever_happens(steps in prop::collection::vec(step(), 1..40), slots in PER_TOKEN..=EXPERTS) {
        for kind in POLICIES {
            let make = || residency(EXPERTS, slots, kind.name);
            let (mut residency, mut twin) = (make(), make());
            for step in &steps {
                match step {
                    Step::Token(wanted) => {
                        token(&mut residency, wanted)?;
                        token(&mut twin, wanted)?;
                    }
                    // The twin never hears of it, and goes on as the other does.
                    Step::GivenUp(wanted) => drop(residency.plan(0, wanted)),
                    Step::Chunk(counts, arrive) => {
                        chunk(&mut residency, counts, *arrive)?;
                        chunk(&mut twin, counts, *arrive)?;
                    }
                }
                check_tables(&residency, EXPERTS, slots)?;
                prop_assert_eq!(residency.table(0), twin.table(0), "{}", kind.name);
                prop_assert_eq!(residency.holds(0), twin.holds(0));
            }
        }
    }

    #[test]
    fn no_policy_beats_belady_and_more_slots_never_hurt_lru_and_belady(chosen in tokens(6, 40)) {
        let trace = trace(6, &chosen);
        let hits = |name: &str, slots: usize| run(&trace, name, slots).hits;
        for slots in 2..=6 {
            let best = hits("belady", slots);
            // `static` loads before anyone asks.
            for kind in POLICIES.iter().filter(|kind| kind.name != "static") {
                prop_assert!(hits(kind.name, slots) <= best, "{} with {slots} slots", kind.name);
                prop_assert_eq!(run(&trace, kind.name, slots), run(&trace, kind.name, slots));
            }
            for name in ["lru", "belady"] {
                prop_assert!(slots == 2 || hits(name, slots - 1) <= hits(name, slots), "{name} with {slots} slots");
            }
        }
        // Every expert is loaded once where all have a slot.
        let used: BTreeSet<u32> = chosen.concat().into_iter().collect();
        prop_assert_eq!(run(&trace, "lru", 6).loads, used.len() as u64);
    }

    #[test]
    fn belady_has_the_most_hits_that_any_evictions_give(chosen in tokens(5, 7), slots in 2usize..5) {
        let found = run(&trace(5, &chosen), "belady", slots);
        prop_assert_eq!(found.loads, fewest_loads(&chosen, &BTreeSet::new(), slots));
    }

    #[test]
    fn the_least_budget_that_an_error_names_would_do(
        shapes in prop::collection::vec((1usize..200, 1usize..9, 1u64..1 << 40), 1..5),
        percent in 0.01f64..100.0,
        bytes in 1u64..1 << 40,
    ) {
        let place = |&(experts, per_token, record): &(usize, usize, u64)| {
            PlaceShape { record_bytes: Some(record), ..shape(experts, per_token.min(experts)) }
        };
        let places: Vec<PlaceShape> = shapes.iter().map(place).collect();
        for memory in [ExpertMemory::Percent(percent), ExpertMemory::Bytes(bytes)] {
            match memory.slots(&places, None) {
                Ok(slots) => {
                    prop_assert!(slots.iter().zip(&places).all(|(&slots, place)| (place.experts_per_token..=place.experts).contains(&slots)));
                }
                Err(Error::ExpertMemory { enough, .. }) => {
                    let enough: ExpertMemory = enough.parse().unwrap();
                    prop_assert!(enough.slots(&places, None).is_ok(), "{enough}");
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}

/// Tokens of two different experts each.
fn tokens(experts: u32, most: usize) -> impl Strategy<Value = Vec<Vec<u32>>> {
    let pair = (0..experts, 1..experts).prop_map(move |(first, step)| vec![first, (first + step) % experts]);
    prop::collection::vec(pair, 1..=most)
}

/// By trying all evictions.
fn fewest_loads(chosen: &[Vec<u32>], held: &BTreeSet<u32>, slots: usize) -> u64 {
    let Some((wanted, rest)) = chosen.split_first() else { return 0 };
    let wanted: BTreeSet<u32> = wanted.iter().copied().collect();
    let loads = (&wanted - held).len();
    let others: Vec<u32> = (held - &wanted).into_iter().collect();
    let room = slots - wanted.len();
    // Every set of the others that fits beside the wanted ones.
    let sets = (0u32..1 << others.len()).filter(|set| set.count_ones() as usize <= room);
    let after = sets.map(|set| {
        let kept = others.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, &expert)| expert);
        fewest_loads(rest, &wanted.iter().copied().chain(kept).collect(), slots)
    });
    loads as u64 + after.min().unwrap_or(0)
}

#[test]
fn lfu_is_its_formula_over_a_million_tokens() {
    const MANY: usize = 24;
    let mut policy = (policy("lfu").make)(&setup(MANY, MANY));
    let mut worth = [0f64; MANY];
    let candidates: Vec<usize> = (0..MANY).collect();
    let mut state = 1u64;
    let decay = 0.5f64.powf(1.0 / HALF_LIFE as f64);
    for now in 0..1_000_000u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The lower ones oftener.
        let expert = ((state >> 33) as usize % MANY) * ((state >> 50) as usize % MANY) / MANY;
        let tokens = if now % 1000 == 0 { 300 } else { 1 };
        policy.used(expert, tokens, now);
        worth.iter_mut().for_each(|worth| *worth *= decay);
        worth[expert] += f64::from(tokens);
        if now % 17 == 0 {
            let least = worth.iter().copied().fold(f64::INFINITY, f64::min);
            let victim = policy.victim(&candidates, now);
            assert!(worth[victim] <= least * (1.0 + 1e-6), "at {now}: {victim} of {worth:?}");
        }
    }
    // Very long texts do not overflow either: what was used last stays.
    policy.used(3, 1, u64::MAX / 2);
    policy.used(4, u32::MAX, u64::MAX / 2);
    assert_eq!(policy.victim(&[3, 4], u64::MAX / 2), 3);
    assert_ne!(policy.victim(&candidates, u64::MAX / 2), 3);
}

#[test]
fn lfu_forgets_half_of_a_use_in_its_half_life() {
    let make = || (policy("lfu").make)(&setup(3, 3));
    let victim = |policy: &dyn Policy| policy.victim(&[0, 1], 1000);
    // Two uses are worth one, a half-life later; the lower of equal ones goes.
    let mut even = make();
    even.used(1, 2, 7);
    even.used(0, 1, 7 + HALF_LIFE);
    assert_eq!(victim(even.as_ref()), 0);
    let mut later = make();
    later.used(1, 2, 7);
    later.used(0, 1, 8 + HALF_LIFE);
    assert_eq!(victim(later.as_ref()), 1);
    // Nothing used: the lowest.
    assert_eq!(make().victim(&[1, 2], 0), 1);
}

#[test]
fn policies_are_found_by_name_and_others_are_refused_with_the_near_one() {
    assert_eq!(POLICIES.iter().map(|kind| kind.name).collect::<Vec<_>>(), ["lfu", "lru", "static", "belady", "random"]);
    assert!(POLICIES.iter().all(|kind| std::ptr::eq(policy(&kind.name.to_uppercase()), kind)));
    let error = PolicyKind::named("belad").unwrap_err().to_string();
    assert_eq!(error, "policy: expected one of lfu, lru, static, belady, random, found `belad`; did you mean `belady`?");
    assert!(!PolicyKind::named("clock").unwrap_err().to_string().contains("did you mean"));
}

#[test]
fn a_token_loads_what_is_absent_into_free_slots_first() {
    let mut residency = residency(5, 3, "lru");
    let mut step = |wanted: &[u32]| {
        let loads = residency.plan(0, wanted).commit();
        residency.used(0, wanted);
        loads.iter().map(|load| (load.expert, load.slot, load.evicts)).collect::<Vec<_>>()
    };
    assert_eq!(step(&[4, 1]), [(4, 0, None), (1, 1, None)]);
    assert_eq!(step(&[1, 4]), []);
    assert_eq!(step(&[0, 1, 1]), [(0, 2, None)]);
    assert_eq!(step(&[2, 1]), [(2, 0, Some(4))]);
    // 0 was used before 1 and 2.
    assert_eq!(step(&[3, 4]), [(3, 2, Some(0)), (4, 1, Some(1))]);
    assert_eq!(residency.table(0), [ABSENT, ABSENT, 0, 2, 1]);
    assert_eq!(residency.holds(0), [Some(2), Some(4), Some(3)]);
}

#[test]
fn what_was_about_to_be_overwritten_is_gone_when_a_plan_is_given_up() {
    let mut residency = residency(5, 2, "lru");
    drop(residency.plan(0, &[0, 1]).commit());
    residency.used(0, &[0]);
    residency.used(0, &[1]);
    let mut plan = residency.plan(0, &[3]);
    assert_eq!(plan.loads()[0].evicts, Some(0));
    plan.evict();
    drop(plan);
    assert_eq!(residency.resident(0), [1]);
    assert_eq!(residency.table(0)[3], ABSENT);
    // Its slot is free for the next one, and nothing else has to go.
    let loads = residency.plan(0, &[3]).commit();
    assert_eq!(loads.iter().map(|load| load.evicts).collect::<Vec<_>>(), [None]);
    assert_eq!(residency.resident(0), [1, 3]);

    let mut counts = vec![0; 5];
    counts[2] = 4;
    let mut waves = residency.waves(0, &counts);
    waves.evict_current();
    drop(waves);
    assert_eq!(residency.resident(0).len(), 1);
}

#[test]
#[should_panic(expected = "3 experts are wanted in 2 slots")]
fn more_experts_than_slots_are_a_mistake_of_the_caller() {
    drop(residency(5, 2, "lru").plan(0, &[0, 1, 2]));
}

#[test]
fn a_chunk_takes_what_is_there_first_and_ends_with_what_is_of_most_worth() {
    let mut residency = residency(6, 2, "lfu");
    drop(residency.plan(0, &[1, 2]).commit());
    let counts = [9, 4, 0, 1, 3, 2];
    residency.used_by_chunk(0, &counts, 10);
    let mut waves = residency.waves(0, &counts);
    let loads = |wave: &moebius::paging::Wave| wave.loads.iter().map(|load| (load.expert, load.evicts)).collect::<Vec<_>>();
    assert_eq!(waves.all().iter().map(|wave| wave.experts.clone()).collect::<Vec<_>>(), [vec![1], vec![3, 5], vec![0, 4]]);
    // 2 is of no use, so it goes before 1; what comes least often comes first.
    assert_eq!(loads(&waves.all()[1]), [(3, Some(2)), (5, Some(1))]);
    assert_eq!(loads(&waves.all()[2]), [(4, Some(3)), (0, Some(5))]);
    assert_eq!(waves.current().unwrap().1, [ABSENT, 0, ABSENT, ABSENT, ABSENT, ABSENT]);
    waves.commit_current();
    assert_eq!(waves.current().unwrap().1, [ABSENT, ABSENT, ABSENT, 1, ABSENT, 0]);
    // The records of this wave never come.
    assert_eq!(residency.resident(0), [1, 2]);
}

#[test]
fn experts_without_weights_need_no_slot() {
    let place = PlaceShape { weightless: 2, ..shape(4, 3) };
    assert_eq!((place.weighted(), place.least_slots()), (2, 2));
    let mut residency = Residency::new(&[place], &[1], |_| (policy("lfu").make)(&setup(2, 1)));
    assert_eq!(residency.table(0), [ABSENT, ABSENT, WEIGHTLESS, WEIGHTLESS]);
    let loads = residency.plan(0, &[3, 1, 2]).commit();
    assert_eq!(loads.iter().map(|load| load.expert).collect::<Vec<_>>(), [1]);
    residency.used(0, &[3, 1, 2]);
    residency.used_by_chunk(0, &[1, 0, 1, 1], 1);
    let waves = residency.waves(0, &[1, 0, 1, 1]);
    assert_eq!(waves.all().iter().map(|wave| wave.experts.clone()).collect::<Vec<_>>(), [[0]]);
    assert_eq!(waves.current().unwrap().1, [0, ABSENT, WEIGHTLESS, WEIGHTLESS]);
}

#[test]
fn pinned_experts_are_there_from_the_start_and_stay() {
    let hot = [4, 2, 0, 1, 3];
    let setup = PolicySetup { least_slots: 1, hot: &hot, ..setup(5, 3) };
    let mut residency = Residency::new(&[shape(5, 1)], &[3], |_| (policy("static").make)(&setup));
    assert_eq!(residency.start(0).commit().iter().map(|load| load.expert).collect::<Vec<_>>(), [4, 2]);
    for wanted in [0, 1, 3, 0, 4, 1] {
        drop(residency.plan(0, &[wanted]).commit());
        residency.used(0, &[wanted]);
        assert!(residency.table(0)[4] == 0 && residency.table(0)[2] == 1 && residency.table(0)[wanted as usize] != ABSENT);
    }
    // A prompt passes its others one by one.
    let waves = residency.waves(0, &[1; 5]);
    assert_eq!(waves.all().iter().map(|wave| wave.experts.len()).collect::<Vec<_>>(), [3, 1, 1]);
    assert_eq!(residency.fill(0, &[0, 3]).loads(), [], "no slot is free");
}

fn one_by_one(experts: &[u32]) -> Vec<Vec<u32>> {
    experts.iter().map(|&expert| vec![expert]).collect()
}

#[test]
fn simulations_of_a_short_text_are_those_counted_by_hand() {
    // Two slots. lru: 0 1 hit0 2(-1) 1(-0) 0(-2) hit0. belady: 2 takes the slot of 1 or 0, whichever comes later: that of 0.
    let trace = trace(4, &one_by_one(&[0, 1, 0, 2, 1, 0, 0]));
    let lru = run(&trace, "lru", 2);
    assert_eq!((lru.requests, lru.hits, lru.loads, lru.stops), (7, 2, 5, 5));
    assert_eq!((lru.tokens, lru.tokens_without_stop, lru.loaded_bytes, lru.slot_bytes), (7, Some(2), Some(50), Some(20)));
    assert_eq!((lru.slot_share, lru.budget.as_str(), lru.policy), (0.5, "50%", "lru"));
    assert_eq!(lru.layers[0].resident, [0, 1]);
    assert!((lru.hit_share() - 2.0 / 7.0).abs() < 1e-12 && (lru.loads_per_token() - 5.0 / 7.0).abs() < 1e-12);
    assert_eq!(run(&trace, "belady", 2).hits, 3);
    // 0 has been used twice when 2 comes, 1 once; then 1 for 2, 0 is there.
    assert_eq!(run(&trace, "lfu", 2).hits, 3);
    // 0 is the busiest; the others share the second slot.
    let fixed = run(&trace, "static", 2);
    assert_eq!((fixed.first_loads, fixed.hits, fixed.loads), (1, 4, 3));
}

#[test]
fn stops_are_counted_by_layer_and_tokens_without_one_are_told() {
    let layer = |layer| TracedLayer { layer, experts: 3, experts_per_token: 1, ..TracedLayer::default() };
    let mut trace = Trace::new(Source::default(), vec![layer(2), layer(5)]);
    add_text(&mut trace, "x", &[&one_by_one(&[0, 0, 1, 1]), &one_by_one(&[0, 1, 0, 0])]);
    add_text(&mut trace, "y", &[&one_by_one(&[1, 2]), &one_by_one(&[0, 0])]);
    let all = run(&trace, "lru", 2);
    // Layer 2: 0, -, 1, -; -, 2. Layer 5: 0, 1, -, -; -, -.
    assert_eq!((all.stops, all.loads, all.hits, all.tokens_without_stop), (5, 5, 7, Some(2)));
    assert_eq!(all.layers.iter().map(|layer| (layer.layer, layer.stops)).collect::<Vec<_>>(), [(2, 3), (5, 2)]);
    assert_eq!((all.loaded_bytes, all.slot_bytes, all.bytes_per_token()), (None, None, None));
    // By itself the second text begins with nothing.
    let second = simulate(&trace, &SimulationOptions { text: Some(1), ..options("lru", 2, 3) }).unwrap();
    assert_eq!((second.text.as_deref(), second.tokens, second.loads), (Some("y"), 2, 3));
    let error = simulate(&trace, &SimulationOptions { text: Some(2), ..options("lru", 2, 3) }).unwrap_err();
    assert!(error.to_string().contains("text: expected one of 2"), "{error}");
}

#[test]
fn prompts_need_every_expert_of_a_chunk_once() {
    let mut trace = trace(4, &one_by_one(&[0, 0, 1, 2, 3, 0, 0]));
    add_text(&mut trace, "y", &[&one_by_one(&[0, 3])]);
    let prefill = |chunk| SimulationOptions { order: Order::Prefill { chunk }, ..options("lru", 2, 4) };
    let found = simulate(&trace, &prefill(4)).unwrap();
    // {0, 1, 2} in waves of two and one, {3, 0}, {0, 3}: the texts share no chunk.
    assert_eq!((found.requests, found.tokens, found.tokens_without_stop), (7, 9, None));
    // First 0 and 1, then 2 in the place of 0, then 3 and 0 in those of 1 and 2.
    assert_eq!((found.loads, found.hits, found.stops), (5, 2, 3));
    assert_eq!(found.layers[0].resident, [0, 3]);
    let whole = simulate(&trace, &prefill(100)).unwrap();
    assert_eq!(whole.requests, 4 + 2);
    assert!(simulate(&trace, &prefill(0)).unwrap_err().to_string().contains("chunk: expected at least one token"));
}

#[test]
fn a_profile_has_to_be_of_the_same_layers() {
    let trace_a = trace(4, &one_by_one(&[0, 1, 0, 2]));
    let profile = trace(4, &one_by_one(&[3, 3, 3]));
    let with = |profile| simulate(&trace_a, &SimulationOptions { profile: Some(profile), ..options("static", 2, 4) });
    // 3 takes a slot for nothing.
    assert_eq!(with(&profile).unwrap().hits, 0);
    assert_eq!(run(&trace_a, "static", 2).hits, 2);
    let error = with(&trace(5, &one_by_one(&[3]))).unwrap_err().to_string();
    assert!(error.contains("profile: expected the 1 layers") && error.contains("layer 0 with 5 experts"), "{error}");
}
