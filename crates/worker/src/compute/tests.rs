use std::sync::mpsc::{Receiver, Sender, channel};

use modelyard_core::{Datatype, Signature, TensorSpec};
use modelyard_protocol::TensorData;

use super::queue::{Asked, Next, State};
use super::*;

/// Adds one to each number, of which it refuses, fails on and panics at one each.
struct PlusOne {
    signature: Signature,
    /// The rows of each call.
    calls: Mutex<Vec<usize>>,
    /// Gives one row however many it was given.
    sums_up: bool,
}

const REFUSED: i64 = -1;
const FAILS: i64 = -2;
const PANICS: i64 = -3;

impl PlusOne {
    fn new(input: &[i64], output: &[i64]) -> Self {
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Int64,
            shape: shape.to_vec(),
        };
        let signature = Signature { inputs: vec![spec("x", input)], outputs: vec![spec("y", output)] };
        Self { signature, calls: Mutex::default(), sums_up: false }
    }

    fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }
}

impl Engine for PlusOne {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn name(&self) -> &'static str {
        "plus one"
    }

    fn infer(&self, mut inputs: Vec<Tensor>, _: &[String]) -> Result<Vec<Tensor>, InferError> {
        let Tensor { mut shape, data, .. } = inputs.remove(0);
        let TensorData::Int64(x) = data else { panic!("not INT64") };
        self.calls.lock().unwrap().push(shape.first().copied().unwrap_or(1));
        if x.contains(&REFUSED) {
            return Err(InferError::BadInput("no".into()));
        }
        if x.contains(&FAILS) {
            return Err(InferError::Failed("it broke".into()));
        }
        assert!(!x.contains(&PANICS), "on purpose");
        let mut y: Vec<i64> = x.into_iter().map(|x| x + 1).collect();
        if self.sums_up {
            (shape, y) = (vec![1], vec![y.iter().sum()]);
        }
        Ok(vec![Tensor::new("y", shape, TensorData::Int64(y)).unwrap()])
    }
}

/// Numbers, or something that keeps the thread that reads it until it may go on.
enum Ask {
    Numbers(Vec<usize>, Vec<i64>),
    /// For nobody after that time, which is told when it is read.
    Until(Instant, Vec<i64>),
    Hold(Sender<()>, Receiver<()>),
    PanicWhenRead,
}

impl Request for Ask {
    type Reply = ();
    type Answer = Result<Vec<i64>, String>;

    fn read(self, _: &dyn Engine) -> Result<(Call, ()), Self::Answer> {
        match self {
            Self::Numbers(shape, numbers) => {
                let x = Tensor::new("x", shape, TensorData::Int64(numbers)).unwrap();
                Ok((Call { inputs: vec![x], outputs: Vec::new(), deadline: None }, ()))
            }
            Self::Until(deadline, numbers) => {
                let x = Tensor::new("x", vec![numbers.len()], TensorData::Int64(numbers)).unwrap();
                Ok((Call { inputs: vec![x], outputs: Vec::new(), deadline: Some(deadline) }, ()))
            }
            Self::Hold(started, released) => {
                started.send(()).unwrap();
                released.recv().ok();
                Err(Err("held".into()))
            }
            Self::PanicWhenRead => panic!("on purpose"),
        }
    }

    fn write((): (), result: Result<Vec<Tensor>, Unanswered>) -> Self::Answer {
        let outputs = result.map_err(|error| match error {
            Unanswered::Engine(error) => error.to_string(),
            Unanswered::Late => "late".into(),
        });
        match outputs?.remove(0).data {
            TensorData::Int64(y) => Ok(y),
            other => Err(format!("{other:?}")),
        }
    }
}

struct Pool {
    pool: Lane<Ask>,
    engine: Arc<PlusOne>,
    metrics: Arc<Metrics>,
}

/// Longer than any test takes.
const FOREVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

fn pool(engine: PlusOne, places: usize, limits: Option<(usize, Duration)>) -> Pool {
    pool_of(1, engine, places, limits)
}

fn pool_of(threads: usize, engine: PlusOne, places: usize, limits: Option<(usize, Duration)>) -> Pool {
    let metrics = Arc::new(Metrics::new());
    let pool = ComputePool::start(threads, &metrics).unwrap();
    lane_of(&pool, &metrics, engine, QueueLimits { places, wait: FOREVER }, limits)
}

fn lane_of(
    pool: &ComputePool<Ask>,
    metrics: &Arc<Metrics>,
    engine: PlusOne,
    queue: QueueLimits,
    limits: Option<(usize, Duration)>,
) -> Pool {
    let engine = Arc::new(engine);
    let batch = limits.map(|(rows, delay)| BatchLimits { rows, delay });
    let lane = pool.lane(LaneOptions { engine: engine.clone(), queue, batch, inference: None });
    Pool { pool: lane, engine, metrics: metrics.clone() }
}

fn plus_one() -> PlusOne {
    PlusOne::new(&[-1], &[-1])
}

fn single(places: usize) -> Pool {
    pool(plus_one(), places, None)
}

/// Where nobody waits for long. Those that came while the thread was busy are read before any of them goes, so it takes
/// no wait to be in one batch.
fn batching(rows: usize) -> Pool {
    pool(plus_one(), 100, Some((rows, SHORT)))
}

fn patient(rows: usize) -> Pool {
    pool(plus_one(), 100, Some((rows, FOREVER)))
}

type Answer = oneshot::Receiver<<Ask as Request>::Answer>;

impl Pool {
    fn ask(&self, numbers: &[i64]) -> Answer {
        self.pool.submit(Ask::Numbers(vec![numbers.len()], numbers.to_vec()), None).unwrap()
    }

    /// Keeps the one thread busy until the sender is dropped.
    fn occupy(&self) -> (Sender<()>, Answer) {
        let (release, released) = channel();
        let (started, has_started) = channel();
        let answer = self.pool.submit(Ask::Hold(started, released), None).unwrap();
        has_started.recv().unwrap();
        (release, answer)
    }

    fn queued(&self) -> i64 {
        self.metrics.queued.get()
    }
}

fn get(answer: Answer) -> Result<Vec<i64>, String> {
    answer.blocking_recv().unwrap_or_else(|_| Err("a panic".into()))
}

#[test]
fn a_full_queue_refuses_at_once() {
    for pool in [single(1), pool(plus_one(), 1, Some((8, SHORT)))] {
        let (release, _first) = pool.occupy();
        let second = pool.ask(&[2]);
        assert_eq!(pool.queued(), 1);
        assert_eq!(pool.pool.submit(Ask::Numbers(vec![1], vec![3]), None).unwrap_err(), Overloaded::Full);
        drop(release);
        assert_eq!(get(second), Ok(vec![3]));
        assert_eq!(pool.queued(), 0);
    }
}

#[test]
fn a_request_whose_client_left_is_not_computed() {
    for (pool, calls) in [(single(9), vec![1, 1]), (batching(8), vec![2])] {
        let (release, _first) = pool.occupy();
        let before = pool.ask(&[1]);
        drop(pool.ask(&[5, 6, 7]));
        let after = pool.ask(&[2]);
        drop(release);
        assert_eq!((get(before), get(after)), (Ok(vec![2]), Ok(vec![3])));
        assert_eq!(pool.engine.calls(), calls);
    }
}

#[test]
fn a_panic_costs_its_answer_and_no_thread() {
    for pool in [single(9), patient(8)] {
        assert_eq!(get(pool.pool.submit(Ask::PanicWhenRead, None).unwrap()), Err("a panic".into()));
        assert_eq!(get(pool.ask(&[PANICS])), Err("a panic".into()));
        assert_eq!(get(pool.ask(&[1])), Ok(vec![2]));
    }
}

#[test]
fn those_that_wait_are_computed_together_and_each_has_its_rows() {
    let pool = batching(8);
    let (release, _held) = pool.occupy();
    let answers = [pool.ask(&[1]), pool.ask(&[2, 3]), pool.ask(&[4])];
    drop(release);
    assert_eq!(answers.map(get), [Ok(vec![2]), Ok(vec![3, 4]), Ok(vec![5])]);
    assert_eq!(pool.engine.calls(), [4]);
    let text = pool.metrics.encode().unwrap();
    assert!(text.contains("modelyard_worker_batch_rows_sum 4.0\nmodelyard_worker_batch_rows_count 1\n"), "{text}");
    assert!(text.contains("modelyard_worker_queue_seconds_count 3\n"), "{text}");
}

#[test]
fn batches_are_no_larger_than_they_may_be_and_in_order_of_arrival() {
    let pool = patient(4);
    let (release, _held) = pool.occupy();
    // The third does not fit the first batch; the fourth would, and is not let past. The fifth is too large for any.
    let answers = [&[1, 2][..], &[3], &[4, 5], &[6], &[7, 7, 7, 7, 7], &[8]].map(|numbers| pool.ask(numbers));
    drop(release);
    let expected = [&[2, 3][..], &[4], &[5, 6], &[7], &[8, 8, 8, 8, 8], &[9]].map(|numbers| Ok(numbers.to_vec()));
    assert_eq!(answers.map(get), expected);
    let mut calls = pool.engine.calls();
    assert_eq!(calls[0], 3);
    calls.sort_unstable();
    assert_eq!(calls, [3, 4, 5]);
}

#[test]
fn only_requests_of_one_shape_are_joined() {
    let pool = pool(PlusOne::new(&[-1, -1], &[-1, -1]), 100, Some((8, SHORT)));
    let (release, _held) = pool.occupy();
    let ask =
        |shape: [usize; 2]| pool.pool.submit(Ask::Numbers(shape.to_vec(), vec![7; shape[0] * shape[1]]), None).unwrap();
    let answers = [ask([1, 2]), ask([1, 3]), ask([2, 2])];
    drop(release);
    assert_eq!(answers.map(get), [Ok(vec![8; 2]), Ok(vec![8; 3]), Ok(vec![8; 4])]);
    let mut calls = pool.engine.calls();
    calls.sort_unstable();
    assert_eq!(calls, [1, 3]);
}

#[test]
fn one_bad_request_does_not_spoil_its_neighbours() {
    for (bad, why) in [(REFUSED, "no"), (FAILS, "the model failed: it broke")] {
        let pool = batching(8);
        let (release, _held) = pool.occupy();
        let answers = [pool.ask(&[1]), pool.ask(&[bad]), pool.ask(&[3])];
        drop(release);
        assert_eq!(answers.map(get), [Ok(vec![2]), Err(why.into()), Ok(vec![4])]);
        assert_eq!(pool.engine.calls(), [3, 1, 1, 1]);
    }
}

#[test]
fn a_request_that_does_not_fit_the_model_never_joins() {
    let pool = batching(8);
    let (release, _held) = pool.occupy();
    let misfit = pool.pool.submit(Ask::Numbers(vec![1, 1], vec![7]), None).unwrap();
    let answers = [pool.ask(&[1]), misfit, pool.ask(&[3])];
    drop(release);
    let why = "input `x` must have shape [-1] (-1 is any), not [1, 1]";
    assert_eq!(answers.map(get), [Ok(vec![2]), Err(why.into()), Ok(vec![4])]);
    assert_eq!(pool.engine.calls(), [2]);
}

#[test]
fn a_panic_in_a_batch_costs_its_answers_and_no_thread() {
    let pool = batching(8);
    let (release, _held) = pool.occupy();
    let answers = [pool.ask(&[1]), pool.ask(&[PANICS])];
    drop(release);
    assert_eq!(answers.map(get), [Err("a panic".into()), Err("a panic".into())]);
    assert_eq!(get(pool.ask(&[1])), Ok(vec![2]));
    assert_eq!(pool.engine.calls(), [2, 1]);
}

#[test]
fn a_model_that_turns_out_not_to_batch_is_not_batched_again() {
    let pool = pool(PlusOne { sums_up: true, ..plus_one() }, 100, Some((8, SHORT)));
    assert!(pool.pool.batching().unwrap().is_ok());
    for calls in [&[5, 2, 3][..], &[5, 2, 3, 2, 3]] {
        let (release, _held) = pool.occupy();
        let answers = [pool.ask(&[1, 2]), pool.ask(&[3, 4, 5])];
        drop(release);
        assert_eq!(answers.map(get), [Ok(vec![5]), Ok(vec![15])]);
        assert_eq!(pool.engine.calls(), calls);
    }
    let why = pool.pool.batching().unwrap().map(|_| ());
    assert_eq!(why, Err("output `y` had shape [1] for 5 rows of input"));
}

#[test]
fn a_model_without_a_free_first_dimension_is_not_batched() {
    for (input, output, why) in [
        (&[3][..], &[-1][..], "the first dimension of input `x` [3] is not a free one (-1)"),
        (&[-1], &[3], "the first dimension of output `y` [3] is not a free one (-1)"),
        (&[], &[-1], "the first dimension of input `x` [] is not a free one (-1)"),
    ] {
        let pool = pool(PlusOne::new(input, output), 100, Some((8, FOREVER)));
        assert_eq!(pool.pool.batching().unwrap().map(|_| ()), Err(why));
    }
    assert!(single(1).pool.batching().is_none());
}

#[test]
fn a_client_by_itself_never_waits_for_others() {
    let pool = patient(8);
    for n in 0..100 {
        assert_eq!(get(pool.ask(&[n])), Ok(vec![n + 1]));
    }
    assert_eq!(pool.engine.calls(), [1; 100]);
}

#[test]
fn no_more_clients_than_threads_have_one_each() {
    let pool = pool_of(3, plus_one(), 100, Some((8, FOREVER)));
    thread::scope(|scope| {
        for client in 0..3 {
            let pool = &pool;
            scope.spawn(move || (0..100).for_each(|_| assert_eq!(get(pool.ask(&[client])), Ok(vec![client + 1]))));
        }
    });
    assert_eq!(pool.engine.calls(), [1; 300]);
}

#[test]
fn those_who_asked_together_lately_are_waited_for() {
    let pool = patient(8);
    let (release, held) = pool.occupy();
    let [second, third] = [pool.ask(&[1]), pool.ask(&[2])];
    drop(release);
    assert_eq!(get(held), Err("held".into()));
    // Three were in flight at once, so two of them wait for the first to ask again.
    let first = pool.ask(&[3]);
    assert_eq!([first, second, third].map(get), [Ok(vec![4]), Ok(vec![2]), Ok(vec![3])]);
    assert_eq!(pool.engine.calls(), [3]);
}

/// The queue alone, at times of the test's choice.
#[test]
fn those_whose_answers_took_long_are_waited_for_too() {
    let (begin, delay) = (Instant::now(), Duration::from_millis(10));
    let mut queue = State::<Ask>::new(1, BatchLimits { rows: 8, delay }, begin);
    let mut clients = Vec::new();
    let mut ask = |queue: &mut State<Ask>, arrived: Instant| {
        let (answer, client) = oneshot::channel();
        clients.push(client);
        queue.submit(Unread { request: Ask::PanicWhenRead, answer, arrived, deadline: None });
        let Next::Read(Unread { answer, .. }) = queue.next(arrived) else { panic!("it is not read") };
        let x = Tensor::new("x", vec![1], TensorData::Int64(vec![7])).unwrap();
        let call = Call { inputs: vec![x], outputs: Vec::new(), deadline: None };
        queue.join(Asked { call, reply: (), answer, arrived, deadline: None });
    };
    (0..3).for_each(|_| ask(&mut queue, begin));
    assert!(matches!(queue.next(begin), Next::Compute(batch) if batch.len() == 3));

    let end = begin + delay * 100;
    queue.answered(3, end);
    ask(&mut queue, end);
    assert!(matches!(queue.next(end), Next::Wait(Some(limit)) if limit == delay));
    assert!(matches!(queue.next(end + delay), Next::Compute(batch) if batch.len() == 1));
    // By then, nobody else has asked for long.
    queue.answered(1, end + delay);
    ask(&mut queue, end + delay * 3);
    assert!(matches!(queue.next(end + delay * 3), Next::Compute(batch) if batch.len() == 1));
}

#[test]
fn a_request_that_has_waited_for_long_enough_goes() {
    let pool = batching(8);
    let (release, held) = pool.occupy();
    let second = pool.ask(&[1]);
    drop(release);
    // Whose client does not ask again.
    assert_eq!((get(held), get(second)), (Err("held".into()), Ok(vec![2])));
}

#[test]
fn what_waits_when_the_pool_ends_is_computed() {
    let pool = patient(8);
    let (release, _held) = pool.occupy();
    let waiting = pool.ask(&[1]);
    drop(pool.pool);
    drop(release);
    assert_eq!(get(waiting), Ok(vec![2]));
}

#[test]
fn a_request_whose_time_is_over_is_not_computed() {
    for pool in [single(9), batching(8)] {
        let (release, _held) = pool.occupy();
        let past = Instant::now();
        let told_by_its_head = pool.pool.submit(Ask::Numbers(vec![1], vec![1]), Some(past)).unwrap();
        let told_by_its_body = pool.pool.submit(Ask::Until(past, vec![2]), None).unwrap();
        let after = pool.ask(&[3]);
        drop(release);
        assert_eq!(get(after), Ok(vec![4]));
        assert_eq!(get(told_by_its_body), Err("late".into()));
        // Whoever waits for it knows its deadline.
        assert!(told_by_its_head.blocking_recv().is_err());
        assert_eq!(pool.engine.calls(), [1]);
    }
}

/// The queue alone, at times of the test's choice.
#[test]
fn a_request_with_a_deadline_does_not_wait_for_others_beyond_half_of_it() {
    let (begin, second) = (Instant::now(), Duration::from_secs(1));
    let mut queue = State::<Ask>::new(1, BatchLimits { rows: 8, delay: second * 60 }, begin);
    let mut clients = Vec::new();
    let mut ask = |queue: &mut State<Ask>, deadline: Option<Instant>| {
        let (answer, client) = oneshot::channel();
        clients.push(client);
        queue.submit(Unread { request: Ask::PanicWhenRead, answer, arrived: begin, deadline });
        let Next::Read(Unread { answer, .. }) = queue.next(begin) else { panic!("it is not read") };
        let x = Tensor::new("x", vec![1], TensorData::Int64(vec![7])).unwrap();
        let call = Call { inputs: vec![x], outputs: Vec::new(), deadline: None };
        queue.join(Asked { call, reply: (), answer, arrived: begin, deadline });
    };
    // Three in flight at once, of which one asks again later: it is waited for.
    (0..3).for_each(|_| ask(&mut queue, None));
    assert!(matches!(queue.next(begin), Next::Compute(batch) if batch.len() == 3));
    queue.answered(3, begin);
    ask(&mut queue, Some(begin + second * 8));
    ask(&mut queue, None);
    assert!(matches!(queue.next(begin), Next::Wait(Some(limit)) if limit == second * 4));
    assert!(matches!(queue.next(begin + second * 4), Next::Compute(batch) if batch.len() == 2));
    // When nobody looked in time, it is told so, and the other goes on waiting.
    queue.answered(2, begin);
    ask(&mut queue, Some(begin + second * 8));
    ask(&mut queue, None);
    assert!(matches!(queue.next(begin + second * 8), Next::Late(late) if late.len() == 1));
    assert_eq!(queue.waiting(), 1);
}

/// Admission alone: what is expected is what came before.
#[test]
fn a_request_that_would_wait_too_long_is_refused() {
    let pool = single(100);
    let (ms, now) = (Duration::from_millis, Instant::now());
    let model = lane::Model {
        engine: pool.engine.clone(),
        queue: QueueLimits { places: 100, wait: ms(100) },
        batch: None,
        inference: None,
        off: std::sync::OnceLock::new(),
        waiting: 0.into(),
        cost: 10_000_000.into(),
    };
    let admits = |waiting: usize, deadline| model.admits(waiting, waiting as u64 * model.cost(), 2, now, deadline);
    assert_eq!(admits(20, None), Ok(()));
    assert_eq!(admits(21, None), Err(Overloaded::TooLong(ms(105))));
    assert_eq!(admits(100, None), Err(Overloaded::Full));
    // With 10 ms of its own after 45 ms of waiting, and as much to spare.
    assert_eq!(admits(9, Some(now + ms(110))), Ok(()));
    assert_eq!(admits(9, Some(now + ms(109))), Err(Overloaded::TooLong(ms(45))));
    // Whatever is expected, so that it can turn out wrong.
    assert_eq!(admits(0, Some(now)), Ok(()));
    model.cost.store(10_000_000_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(admits(1, None), Ok(()));
    assert_eq!(admits(2, None), Err(Overloaded::TooLong(ms(10_000))));
}

#[test]
fn a_queue_that_is_long_in_time_refuses_what_its_model_cannot_answer_soon() {
    let metrics = Arc::new(Metrics::new());
    let pool = ComputePool::start(1, &metrics).unwrap();
    let queue = QueueLimits { places: 100, wait: Duration::ZERO };
    let lane = lane_of(&pool, &metrics, plus_one(), queue, None);
    assert_eq!(get(lane.ask(&[1])), Ok(vec![2]));
    let (release, _held) = lane.occupy();
    let _waits = lane.ask(&[1]);
    let refused = lane.pool.submit(Ask::Numbers(vec![1], vec![1]), None);
    assert!(matches!(refused, Err(Overloaded::TooLong(wait)) if wait > Duration::ZERO));
    assert!(lane.pool.admits(None).is_err());
    drop(release);
}

#[test]
fn models_share_threads_and_none_waits_for_all_that_another_has_been_asked() {
    let metrics = Arc::new(Metrics::new());
    let pool = ComputePool::start(1, &metrics).unwrap();
    let limits = QueueLimits { places: 100, wait: FOREVER };
    let [busy, rare] = [(); 2].map(|()| lane_of(&pool, &metrics, plus_one(), limits, None));
    let (release, _held) = busy.occupy();
    let many: Vec<_> = (0..50).map(|n| busy.ask(&[n])).collect();
    let (release_rare, held_rare) = channel();
    let (started, has_started) = channel();
    let one = rare.pool.submit(Ask::Hold(started, held_rare), None).unwrap();
    drop(release);
    // Of the fifty, hardly any were computed by then: the busy model has had its time while it held the thread.
    has_started.recv().unwrap();
    let computed = busy.engine.calls().len();
    assert!(computed <= 1, "{computed}");
    drop(release_rare);
    assert_eq!(get(one), Err("held".into()));
    many.into_iter().zip(0..).for_each(|(answer, n)| assert_eq!(get(answer), Ok(vec![n + 1])));
}

#[test]
fn a_model_that_is_gone_leaves_its_place_to_another() {
    let metrics = Arc::new(Metrics::new());
    let pool = ComputePool::start(2, &metrics).unwrap();
    let limits = QueueLimits { places: 100, wait: FOREVER };
    for n in 0..100 {
        let lane = lane_of(&pool, &metrics, plus_one(), limits, (n % 2 == 0).then_some((8, SHORT)));
        let answer = lane.ask(&[n]);
        drop(lane.pool);
        assert_eq!(get(answer), Ok(vec![n + 1]));
    }
    assert_eq!(metrics.queued.get(), 0);
}
