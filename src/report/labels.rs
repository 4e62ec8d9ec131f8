//! Finds a free place for the name of each line near its end, so that a reader needs no legend.
//!
//! Candidates around the end are tried from the nearest to the farthest; the first that covers no line, no marker and
//! no other label is taken. If one label finds no place, none is placed, and the caller draws a legend.

use super::scene::{Point, Rect};

/// A label that wants a place.
#[derive(Debug, Clone)]
pub struct Request {
    /// The point it names.
    pub anchor: Point,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

/// What labels must not cover.
#[derive(Debug, Clone, Default)]
pub struct Obstacles {
    /// Lines.
    pub lines: Vec<Vec<Point>>,
    /// Markers, other texts.
    pub boxes: Vec<Rect>,
}

impl Obstacles {
    fn touches(&self, place: &Rect) -> bool {
        self.boxes.iter().any(|other| other.overlaps(place))
            || self.lines.iter().any(|line| line.windows(2).any(|pair| place.clip(pair[0], pair[1]).is_some()))
    }
}

/// Distance between a point and its label.
const GAP: f64 = 9.0;

/// A place within `bounds` for each request, in their order; `None` if there is not one for each.
#[must_use]
pub fn place(requests: &[Request], obstacles: &Obstacles, bounds: &Rect) -> Option<Vec<Rect>> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    // Those near the right border have the fewest choices.
    order.sort_by(|one, other| requests[*other].anchor.0.total_cmp(&requests[*one].anchor.0));
    let mut taken = obstacles.clone();
    let mut places = vec![None; requests.len()];
    for index in order {
        let found = candidates(&requests[index])
            .into_iter()
            .find(|rect| bounds.contains(rect) && !taken.touches(&rect.grown(1.5)))?;
        taken.boxes.push(found);
        places[index] = Some(found);
    }
    places.into_iter().collect()
}

/// Places around the anchor: to the right, above, below, to the left; each nearer before farther.
fn candidates(request: &Request) -> Vec<Rect> {
    let Request { anchor: (x, y), width, height } = *request;
    let mut rects = Vec::new();
    for lift in [0.0, -0.45, 0.45, -0.9, 0.9] {
        let top = y - height / 2.0 + lift * height;
        rects.push(Rect::new(x + GAP, top, x + GAP + width, top + height));
    }
    for distance in [GAP, GAP + 0.5 * height, GAP + height] {
        for start in [x - width / 2.0, x - width + 8.0, x - 8.0] {
            rects.push(Rect::new(start, y - distance - height, start + width, y - distance));
            rects.push(Rect::new(start, y + distance, start + width, y + distance + height));
        }
    }
    for lift in [0.0, -0.45, 0.45, -0.9, 0.9] {
        let top = y - height / 2.0 + lift * height;
        rects.push(Rect::new(x - GAP - width, top, x - GAP, top + height));
    }
    rects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(x: f64, y: f64) -> Request {
        Request { anchor: (x, y), width: 60.0, height: 14.0 }
    }

    #[test]
    fn labels_of_lines_that_end_close_together_do_not_overlap() {
        let ends = [(400.0, 100.0), (402.0, 104.0), (398.0, 110.0)];
        let obstacles = Obstacles {
            lines: ends.iter().map(|end| vec![(0.0, 300.0), *end]).collect(),
            boxes: ends.iter().map(|(x, y)| Rect::new(x - 5.0, y - 5.0, x + 5.0, y + 5.0)).collect(),
        };
        let bounds = Rect::new(0.0, 0.0, 500.0, 320.0);
        let requests: Vec<Request> = ends.iter().map(|(x, y)| request(*x, *y)).collect();
        let places = place(&requests, &obstacles, &bounds).expect("there is room");
        for (index, rect) in places.iter().enumerate() {
            assert!(bounds.contains(rect));
            assert!(places[index + 1..].iter().all(|other| !other.overlaps(rect)));
            assert!(obstacles.lines.iter().all(|line| rect.clip(line[0], line[1]).is_none()));
        }
    }

    #[test]
    fn no_place_is_invented_where_there_is_none() {
        let bounds = Rect::new(0.0, 0.0, 50.0, 50.0);
        assert_eq!(place(&[request(25.0, 25.0)], &Obstacles::default(), &bounds), None);
    }
}
